"""The numbers of trained runs: the card, samplers, comparison."""
