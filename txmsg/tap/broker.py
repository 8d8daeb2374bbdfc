"""What `twistd` loads for `txmsg-broker`: the options and the service.  Comes next."""

__all__: list[str] = []
