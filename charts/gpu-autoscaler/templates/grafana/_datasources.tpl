{{/* The dashboards name these two by their uid. */}}
{{- define "gpu-autoscaler.datasources" -}}
{{- $url := include "gpu-autoscaler.prometheusURL" . -}}
{{- $aggregates := $url -}}
{{- if and .Values.prometheus.enabled (not .Values.controller.prometheusURL) -}}
{{- $aggregates = $url | replace ":9090" ":9091" -}}
{{- end -}}
apiVersion: 1
datasources:
  - name: Prometheus
    uid: gpu-autoscaler
    type: prometheus
    access: proxy
    url: {{ $url }}
    isDefault: true
    jsonData: {timeInterval: {{ .Values.dcgmExporter.scrapeInterval }}}
  - name: Aggregates
    uid: gpu-autoscaler-aggregates
    type: prometheus
    access: proxy
    url: {{ $aggregates }}
    jsonData: {timeInterval: 2m}
{{- end -}}
