"""The values and modules that posteriors, priors and likelihoods are built from, and their contracts."""
