"""What the tests of the streaming service share: a stand-in for the pipeline and small spools."""
