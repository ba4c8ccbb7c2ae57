"""Run the study's command line: ``python -m experiments.study``."""

from idealgroups.cli.app import main

from .cli import study_app

if __name__ == "__main__":
    main(app=study_app)
