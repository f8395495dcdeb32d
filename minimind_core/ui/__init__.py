"""What people look at: widgets, the live plot, the class show and its page, the filmed demo.

Everything asks the Assistant; nothing is computed twice.
"""
