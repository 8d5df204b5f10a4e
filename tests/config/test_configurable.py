import pytest

from panomask.config import CfgNode, configurable

CFG = CfgNode({"A": 1, "B": 2})


class Base:
    @configurable
    def __init__(self, a, *, b=20, c=30):
        """Doc."""
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, offset=0):
        return {"a": cfg.A + offset, "b": cfg.B}


class Child(Base):
    @classmethod
    def from_config(cls, cfg, **kwargs):
        return {**super().from_config(cfg), **kwargs, "a": 7}


class OwnInit(Base):
    @configurable
    def __init__(self, *, extra, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra

    @classmethod
    def from_config(cls, cfg):
        return {**super().from_config(cfg), "extra": "x"}


@configurable(from_config=lambda cfg, offset=0: {"a": cfg.A + offset})
def add(a, b=10):
    return a + b


def test_explicit_arguments_pass_through():
    assert Base(5).values == (5, 20, 30)
    assert Base(a=5, b=6, c=7).values == (5, 6, 7)
    assert add(1) == 11
    assert add(1, b=2) == 3


def test_config_as_first_argument_or_keyword():
    assert Base(CFG).values == (1, 2, 30)
    assert Base(cfg=CFG).values == (1, 2, 30)
    assert Base(CFG, 100).values == (101, 2, 30)
    assert Base(CFG, offset=100).values == (101, 2, 30)
    assert add(CFG) == 11
    assert add(CFG, offset=5) == 16
    assert add(cfg=CFG, offset=5) == 16


def test_keywords_that_from_config_does_not_take_replace_its_own():
    assert Base(CFG, b=9, c=8).values == (1, 9, 8)
    assert add(CFG, b=1) == 2
    assert add(CFG, a=1, b=1) == 2


def test_from_config_of_a_subclass_serves_the_inherited_init():
    assert Child(CFG, c=5).values == (7, 2, 5)  # c went through from_config's **kwargs
    assert Child(1, b=2, c=3).values == (1, 2, 3)


def test_subclass_with_its_own_init():
    made = OwnInit(CFG)
    assert (made.values, made.extra) == ((1, 2, 30), "x")
    assert OwnInit(extra="y", a=3).values == (3, 20, 30)


def test_wrapped_callables_keep_their_faces():
    assert Base.__init__.__doc__ == "Doc."
    assert add.__name__ == "add"
    assert add.from_config(CFG) == {"a": 1}


def test_class_without_from_config():
    class Missing:
        @configurable
        def __init__(self, a):
            pass

    class NotClassmethod(Missing):
        def from_config(self, cfg):
            return {}

    for cls in (Missing, NotClassmethod):
        with pytest.raises(TypeError, match="classmethod 'from_config'"):
            cls(CFG)


def test_first_parameter_of_from_config_must_be_cfg():
    function = configurable(from_config=lambda config: {"a": 1})(lambda a: a)
    with pytest.raises(TypeError, match="must be named 'cfg'"):
        function(CFG)


@pytest.mark.parametrize("arguments", [{}, {"from_config": 3}])
def test_function_needs_from_config(arguments):
    with pytest.raises(TypeError, match="from_config="):
        configurable(**arguments)


def test_bare_decorator_on_a_function():
    with pytest.raises(TypeError, match="on __init__"):
        configurable(lambda a: a)
