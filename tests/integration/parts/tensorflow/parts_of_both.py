"""What the stand-in's two kinds have in common."""


class Refused(Exception):
    def __init__(self, code, message):
        self.code = code
        super().__init__(message)
