"""The ideal number of groups for every group-normalization layer of any network."""
