"""The pictures of finished tasks: `pictures_of` says what they show, a `Gallery` paints them."""

from ._media.gallery import Gallery
from ._media.recipes import Picture, look_of, pictures_of

__all__ = ["Gallery", "Picture", "look_of", "pictures_of"]
