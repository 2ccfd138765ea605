"""Topics once more through a flow: what is read, from where, at which speed."""
