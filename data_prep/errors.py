"""What can be wrong with documents."""


class NoUsableDocuments(Exception):
    """The folder holds nothing to train and test on. The message is one line for the user."""


class UnreadableDocument(Exception):
    """One document cannot be used. The message is the reason shown in the inventory."""


class ReaderFailure(UnreadableDocument):
    """Reading one document failed (time, memory, file system, a change meanwhile).

    Nothing is committed: the next run tries it again.
    """
