{{- define "gpu-autoscaler.namespace" -}}
{{- .Values.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* What all names begin with: `gpu-autoscaler` for a release of that name. */}}
{{- define "gpu-autoscaler.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are selected. Input: dict root, component. */}}
{{- define "gpu-autoscaler.selector" -}}
app.kubernetes.io/name: {{ if eq .component "dcgm-exporter" }}dcgm-exporter{{ else }}gpu-autoscaler{{ end }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels. Input: dict root, component. */}}
{{- define "gpu-autoscaler.labels" -}}
{{ include "gpu-autoscaler.selector" . }}
app.kubernetes.io/part-of: gpu-autoscaler
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name, namespace and labels. Input: dict root, component, name. */}}
{{- define "gpu-autoscaler.metadata" -}}
name: {{ .name }}
namespace: {{ include "gpu-autoscaler.namespace" .root }}
labels:
  {{- include "gpu-autoscaler.labels" . | nindent 2 }}
{{- end -}}

{{/* The same for objects of no namespace. */}}
{{- define "gpu-autoscaler.clusterMetadata" -}}
name: {{ .name }}
labels:
  {{- include "gpu-autoscaler.labels" . | nindent 2 }}
{{- end -}}

{{- define "gpu-autoscaler.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (printf "%s-controller" (include "gpu-autoscaler.fullname" .)) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "gpu-autoscaler.prometheusURL" -}}
{{- if .Values.controller.prometheusURL -}}
{{- .Values.controller.prometheusURL -}}
{{- else if .Values.prometheus.enabled -}}
http://{{ include "gpu-autoscaler.fullname" . }}-prometheus.{{ include "gpu-autoscaler.namespace" . }}.svc:9090
{{- else -}}
http://prometheus-operated:9090
{{- end -}}
{{- end -}}

{{- define "gpu-autoscaler.prometheusPort" -}}
{{- include "gpu-autoscaler.portOf" (include "gpu-autoscaler.prometheusURL" .) -}}
{{- end -}}

{{/* The port of an address, which may be that of its scheme. Input: URL. */}}
{{- define "gpu-autoscaler.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $port | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{/* "true" where the cluster has a Prometheus Operator, or was said to have one. */}}
{{- define "gpu-autoscaler.operator" -}}
{{- $said := .Values.prometheus.prometheusOperator.enabled -}}
{{- if kindIs "bool" $said -}}
{{- $said -}}
{{- else -}}
{{- .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
{{- end -}}
{{- end -}}

{{/* "true" where a ServiceMonitor is wanted. Input: dict root, said. */}}
{{- define "gpu-autoscaler.serviceMonitor" -}}
{{- if kindIs "bool" .said -}}
{{- .said -}}
{{- else -}}
{{- include "gpu-autoscaler.operator" .root -}}
{{- end -}}
{{- end -}}

{{/* Security of a pod. Input: user id. */}}
{{- define "gpu-autoscaler.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Security of a container that may do nothing. */}}
{{- define "gpu-autoscaler.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Milliseconds of a duration such as 500ms, 10s or 1m. */}}
{{- define "gpu-autoscaler.millis" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) -}}
{{- end -}}

{{/* Egress to DNS and the API server. */}}
{{- define "gpu-autoscaler.egressBasics" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
