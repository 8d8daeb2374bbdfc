"""The messaging layer, over each broker there is."""
