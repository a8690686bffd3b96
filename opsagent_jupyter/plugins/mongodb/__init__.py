"""MongoDB 6.0 to 8.0. Importing this loads no driver: pymongo comes with the first connection."""

from opsagent_jupyter.plugins.mongodb.plugin import plugin

__all__ = ["plugin"]
