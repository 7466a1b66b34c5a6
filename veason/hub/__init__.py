"""Sharing on the Hugging Face Hub: model cards, data cards, and the upload."""
