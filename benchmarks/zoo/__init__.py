"""Does planning work on real networks? Several hundred of them, each planned, converted, measured and trained one step.

python -m benchmarks.zoo run [--only PATTERN] [--jobs N]     # resumable: results/zoo.jsonl, one line a network
python -m benchmarks.zoo uniform [--jobs N]                  # one number for all layers: results/zoo-uniform.jsonl
python -m benchmarks.zoo render                              # docs/zoo.md from the results
python -m benchmarks.zoo names [--only PATTERN]              # what there is
"""
