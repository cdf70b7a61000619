"""What inspectors said of an archive's images: one append-only table beside its scores (docs/verdicts.md)."""
