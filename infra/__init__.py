"""The ground floor: committed outputs, fingerprints, supervised processes, launchers, tracking and settings.

Nothing here knows documents, models or flows. Every module imports quickly; MLflow is loaded only when a
tracker is opened.
"""
