def render_look(told):
    return "x"
