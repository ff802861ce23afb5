"""The one exception that means: the input is at fault, and here is the cure."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and the cure.

    The command line prints the message and exits with status 2; a batch of files goes on with the next file.

    >>> raise InputError("noisy.wav: no samples; record again or leave the file out")
    Traceback (most recent call last):
    dsn_lite.errors.InputError: noisy.wav: no samples; record again or leave the file out
    """


def one_line(error: Exception) -> str:
    """The message of an error without line breaks, as file names may contain them."""
    return " ".join(str(error).split("\n"))
