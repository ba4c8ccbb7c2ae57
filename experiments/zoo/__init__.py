"""Does planning work on real networks? Several hundred of them, each converted, compared and trained one step.

python -m experiments.zoo run [--only PATTERN] [--jobs N]     # resumable: zoo.jsonl, one line a network
python -m experiments.zoo render                              # experiments/zoo/report.md from the results
python -m experiments.zoo names [--only PATTERN]              # what there is
"""
