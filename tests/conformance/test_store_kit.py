"""Every back end of the shared store runs the whole conformance kit."""

from opsagent_jupyter.testing.store_kit import *  # noqa: F403 - the kit's tests and fixtures
