"""Classification of texts and images: one file for each task, and what they share."""
