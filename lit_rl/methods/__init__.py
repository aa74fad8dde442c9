"""Methods: one LightningModule per paper, and the supervised warm-up."""
