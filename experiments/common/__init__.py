"""What the experiments share: JSON lines, Markdown, training."""
