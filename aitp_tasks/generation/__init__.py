"""What the three prompt stages share.

``part`` is one part of a stage; ``requests`` says what a stage is, ``generator``
gets its responses, ``preparing`` has the next requests ready for that, ``stored``
keeps the responses, ``responses`` reads them, ``gates`` says which are not kept;
``judging`` asks the engine of answers, ``ranking`` the base model.
``engine`` is the door to whatever generates, ``prompt_files`` the one to the prompts.
"""
