"""Heat maps of one reading beside each other, linked."""

from pages.components.explain_viewer.explain_viewer import pack_explanations, show_explanations

__all__ = ["pack_explanations", "show_explanations"]
