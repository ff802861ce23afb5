"""Interactive pictures for the book and for notebooks; each is one self-contained anywidget.

They need the packages of ``pip install 'dsn-lite[book]'``.
"""
