"""``python -m marketflow`` is the command ``marketflow``."""

from marketflow.flows.cli import main

if __name__ == "__main__":
    main()
