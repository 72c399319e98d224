"""The comparison on screen: pack a case into bytes, show it, hear what the reader chose and drew."""

from pages.components.compare_viewer.compare_viewer import (
    CompareState,
    EditedMask,
    ShownReading,
    chosen_cutoffs,
    forget_drafts,
    pack_case,
    show_comparison,
)

__all__ = [
    "CompareState",
    "EditedMask",
    "ShownReading",
    "chosen_cutoffs",
    "forget_drafts",
    "pack_case",
    "show_comparison",
]
