"""Model packages: what a model says it takes and gives, whether it is fit for use, and how CSV columns reach it."""
