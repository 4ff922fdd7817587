"""Numbers about numbers: intervals by resampling. Pure functions on arrays; no model, no picture, no file."""
