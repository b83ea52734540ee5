"""The pictures of finished tasks: `pictures_of` tells what they show, a `Gallery` paints them."""

from ._media.gallery import Gallery, Picture, look_of, pictures_of

__all__ = ["Gallery", "Picture", "look_of", "pictures_of"]
