"""What users bring of their own: one short file for each kind, and nothing of the package knows them."""
