"""What it means: arrays and tables in, answers out. Imports nothing else of this project, and neither Ray nor torch."""
