"""The model in a plain project of Django, as tutorials have it."""

import json
import os

import django
import joblib
import numpy as np
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for a benchmark",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)
django.setup()
model = joblib.load(os.environ["MODEL"])


@csrf_exempt
def predict(request):
    """Predict rows."""
    rows = json.loads(request.body)["instances"]
    return JsonResponse({"predictions": model.predict(np.array(rows)).tolist()})


urlpatterns = [path("v1/models/iris:predict", predict)]
app = get_wsgi_application()
