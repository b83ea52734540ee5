"""What the tests share: servers, command lines, sample tasks.

A test file imports from here, never from another test file.
"""
