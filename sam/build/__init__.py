"""From a config to objects: data, network, update, trainer; and from a run directory to its network."""
