"""Memory as a limit like any other: how much there is, what data takes, what is refused beforehand."""
