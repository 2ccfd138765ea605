"""``python -m marketflow`` is the command ``marketflow``."""

from marketflow.flows.commands.app import main

if __name__ == "__main__":
    main()
