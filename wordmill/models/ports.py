"""The names of an exported file's inputs and outputs."""

INPUT, LOGITS, TOKENS, CONFIDENCE = "images", "logits", "tokens", "confidence"
