from tests.unit.stages.conftest import backbone, samples, split_folder  # noqa: F401
