{{- define "gpu-autoscaler.prometheusConfig" -}}
global:
  scrape_interval: {{ .Values.dcgmExporter.scrapeInterval }}
  evaluation_interval: 30s
rule_files:
  {{- range $path, $_ := .Files.Glob "rules/*.yaml" }}
  - {{ base $path }}
  {{- end }}
scrape_configs:
  - job_name: dcgm-exporter
    # `pod`, `namespace` and `container` are those of the workload, not of the exporter.
    honor_labels: true
    kubernetes_sd_configs:
      - role: pod
        {{- if .Values.dcgmExporter.enabled }}
        namespaces: {names: [{{ include "gpu-autoscaler.namespace" . }}]}
        {{- end }}
    relabel_configs:
      # Our own exporters, NVIDIA's chart's, and those of the GPU Operator.
      - source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name, __meta_kubernetes_pod_label_app]
        regex: dcgm-exporter;.*|.*;nvidia-dcgm-exporter
        action: keep
      - {source_labels: [__meta_kubernetes_pod_container_port_number], regex: "9400", action: keep}
      - {source_labels: [__meta_kubernetes_pod_phase], regex: Pending|Succeeded|Failed, action: drop}
      - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
  {{- if .Values.controller.enabled }}
  - job_name: gpu-autoscaler-controller
    honor_labels: true
    kubernetes_sd_configs:
      - role: pod
        namespaces: {names: [{{ include "gpu-autoscaler.namespace" . }}]}
    relabel_configs:
      - source_labels:
          - __meta_kubernetes_pod_label_app_kubernetes_io_instance
          - __meta_kubernetes_pod_label_app_kubernetes_io_component
        regex: {{ .Release.Name }};controller
        action: keep
      - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: metrics, action: keep}
  {{- end }}
  - job_name: prometheus
    static_configs:
      - targets: [localhost:9090]
{{- end -}}

{{/* Fetches the hourly aggregates of rules/aggregates.yaml, to keep them for longer. */}}
{{- define "gpu-autoscaler.aggregatesConfig" -}}
global:
  # Below the five minutes after which Prometheus holds a series for gone.
  scrape_interval: 2m
scrape_configs:
  - job_name: federate
    honor_labels: true
    metrics_path: /federate
    params:
      match[]: ['{__name__=~".+:avg1h"}']
    static_configs:
      - targets: [localhost:9090]
{{- end -}}
