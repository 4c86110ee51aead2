"""A process of its own that runs the flow so many times, one after the other, as triggers would.

Run by the tests beside this file. Arguments: the request as JSON; how often; the folder to do it in. Prints
the versions that each run answers with, in a line of JSON, and whether torch was imported for it.
"""

import json
import os
import sys

from stockpot.documents import from_document
from stockpot.entities import SoupRequest
from stockpot_flows.soup_sweep import soup_sweep

os.chdir(sys.argv[3])
request = from_document(SoupRequest, json.loads(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    outcome = soup_sweep(request)
    told = {"versions": [soup.uri for soup in outcome.soups], "torch": "torch" in sys.modules}
    print(json.dumps(told), flush=True)  # noqa: T201 - to the test
