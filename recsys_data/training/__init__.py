"""Training: training sets from the lake, models, and what they are worth."""
