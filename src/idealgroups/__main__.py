"""Run the command line: ``python -m idealgroups``."""

from .cli.app import main

if __name__ == "__main__":
    main()
