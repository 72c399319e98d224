"""The scan viewer: pack an analysis into bytes, show it, hear what the reader chose."""

from pages.components.viewer.viewer import HEAT_CUTOFF, ViewerState, pack_scene, show_viewer

__all__ = ["HEAT_CUTOFF", "ViewerState", "pack_scene", "show_viewer"]
