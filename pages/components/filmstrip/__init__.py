"""A strip of thumbnails to step through the session's scans."""

from pages.components.filmstrip.filmstrip import show_filmstrip

__all__ = ["show_filmstrip"]
