"""What pretrained networks keep when group norm replaces their batch norm."""
