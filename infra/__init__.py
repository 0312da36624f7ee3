"""The ground floor: committed outputs, fingerprints, supervised processes, launchers, journals and settings.

Nothing here knows documents, models or flows. Every module imports quickly; MLflow is loaded only by a thread
that ships a journal.
"""
