"""The files that tasks make: real pictures, videos, sounds and models, and the links they are served at.

`recipes.pictures_of` and `files.file_of` say what a file shows; `gallery.Gallery` and
`files.FileMaker` make its bytes. The same recipe gives the same bytes; Pillow and PyAV are imported
when the first file is made.

May import: _http, _service.
"""
